"""`python -m stayline` is the `stayline` command."""

from stayline.commands.main import main

main()
