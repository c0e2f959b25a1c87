# Archivist as an image: `docker build -t archivist .`
#
# Inside a container it listens on every address, so it starts only with a key (ARCHIVIST_SERVER__API_KEY), and it answers
# only to the host names in ARCHIVIST_SERVER__ALLOWED_HOSTS, a JSON list: localhost and 127.0.0.1, unless you name yours as
# well. Keep 127.0.0.1 in it: the health check calls by it.
# Nothing is written but /data and /tmp: it runs with --read-only --tmpfs /tmp.
#
# `--build-arg INGEST=no` leaves out torch and the models' weights, most of the image: it then only serves, with the exported
# model that an ingest has put into /data.

FROM python:3.12-slim AS builder
# Builds of torch without CUDA. For a GPU: --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG INGEST=yes
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/archivist
COPY constraints.txt ./
# A layer of its own: torch is most of the image and seldom changes.
RUN [ "$INGEST" = no ] \
    || /opt/archivist/bin/pip install -c constraints.txt --no-deps --extra-index-url "$TORCH_INDEX_URL" 'torch>=2.6,<2.14'
COPY . .
RUN if [ "$INGEST" = no ]; then extra=; else extra='[ingest]'; fi \
    && /opt/archivist/bin/pip install -c constraints.txt ".$extra" \
    && /opt/archivist/bin/python -m compileall -q /opt/archivist \
    && { [ "$INGEST" = no ] || /opt/archivist/bin/archivist config check; }

FROM python:3.12-slim
# A fixed number, so that the owner of a mounted folder can be set from outside.
RUN groupadd --gid 10001 archivist \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin archivist \
    && mkdir /data /documents \
    && chown 10001:10001 /data
COPY --from=builder /opt/archivist /opt/archivist
ENV PATH=/opt/archivist/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    TMPDIR=/tmp \
    HF_HUB_OFFLINE=1 \
    ARCHIVIST_DATA_DIR=/data \
    ARCHIVIST_SERVER__HOST=0.0.0.0 \
    ARCHIVIST_SERVER__PORT=8080
# ./config/archivist.yaml is then /config/archivist.yaml: mount your configuration there.
WORKDIR /
USER 10001:10001
VOLUME /data
EXPOSE 8080
# /livez, not /readyz: a service without documents is healthy, and says so at /readyz.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['ARCHIVIST_SERVER__PORT'] + '/livez', timeout=4)"]
ENTRYPOINT ["archivist"]
CMD ["serve"]
