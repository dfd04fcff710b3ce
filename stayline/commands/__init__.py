"""The `stayline` command."""
