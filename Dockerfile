# One image for every part of Stayline; the command says which: `serve`, `worker`, `doctor`, …
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
# The lock pins versions and hashes of everything, tools for development included. All of it is fetched and
# verified here; the image then takes from it only what Stayline needs to run.
COPY requirements.lock ./
RUN pip wheel --no-cache-dir --no-deps --require-hashes --requirement requirements.lock --wheel-dir /wheels
COPY pyproject.toml README.md ./
COPY stayline/ stayline/
COPY workflows/ workflows/
COPY activities/ activities/
COPY media_bridge/ media_bridge/
RUN pip wheel --no-cache-dir --no-deps . --wheel-dir /wheels
RUN python -m venv /opt/stayline \
    && /opt/stayline/bin/pip install --no-cache-dir --no-index --find-links /wheels "stayline[offline]" \
    && /opt/stayline/bin/pip check

FROM python:${PYTHON_VERSION}-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/stayline stayline \
    && install --directory --owner stayline --group stayline /agents /var/lib/stayline
COPY --from=build /opt/stayline /opt/stayline
ENV PATH=/opt/stayline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STAYLINE_DATA_DIR=/var/lib/stayline \
    STAYLINE_LISTEN_ADDR=0.0.0.0:8080 \
    STAYLINE_LOG_FORMAT=json
# Agents are mounted here; references like my_agent:agent are found from here.
WORKDIR /agents
USER stayline
VOLUME /var/lib/stayline
EXPOSE 8080
# Stayline drains its calls on SIGTERM.
STOPSIGNAL SIGTERM
ENTRYPOINT ["stayline"]
CMD ["--help"]
