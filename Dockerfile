# Two stages: wheels are built in the first; the second holds only what runs, as a user without rights.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY daemon daemon
RUN python -m venv /opt/learnd && /opt/learnd/bin/pip install --no-cache-dir .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home learnd && mkdir /data /var/cache/learnd && chown learnd /data /var/cache/learnd
COPY --from=build /opt/learnd /opt/learnd
COPY configs /etc/learnd
ENV PATH=/opt/learnd/bin:$PATH PYTHONUNBUFFERED=1 LEARND_DATA_DIR=/data/model LEARND_HOST=0.0.0.0 NUMBA_CACHE_DIR=/var/cache/learnd
USER learnd
# The machine code of the alarms, which a first start would take 15 s to compile.
RUN python -c "from learnd.alarms.monitor import compile_heads; compile_heads()"
WORKDIR /data
VOLUME /data
EXPOSE 9464
# /livez turns red when the main loop has stood still for a minute; compiling a large model at the start takes a while.
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/livez', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["learnd"]
CMD ["run", "/etc/learnd/press-7.yaml"]
