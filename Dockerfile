# The monitor in a container: slim, without torch, as a user that owns nothing but its data.
#   docker build -t harken .
#   docker run -v /srv/harken:/data -p 127.0.0.1:9464:9464 harken --config /data/plant.yaml
# The configuration's `http: {host: 0.0.0.0}` makes /metrics and /healthz reachable from outside of the container.
FROM python:3.11-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
RUN python -m venv /opt/harken \
    && /opt/harken/bin/pip install --no-cache-dir -c constraints.txt ".[service,stream,postgres]"

FROM python:3.11-slim
RUN groupadd --system --gid 10001 harken \
    && useradd --system --uid 10001 --gid harken --home-dir /data --no-create-home harken \
    && install --directory --owner harken --group harken /data
COPY --from=build /opt/harken /opt/harken
ENV PATH=/opt/harken/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 HARKEN_CACHE=/data/cache
USER harken
WORKDIR /data
VOLUME /data
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/healthz', timeout=4)"]
ENTRYPOINT ["harken", "monitor"]
CMD ["--config", "/data/plant.yaml"]
