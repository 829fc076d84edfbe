FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# Dependencies first: a change of the code leaves this layer as it is.
RUN python -m venv /opt/lc-pipeline \
 && python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
 && /opt/lc-pipeline/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt -r requirements.txt
COPY README.md LICENSE ./
COPY pipeline pipeline
RUN /opt/lc-pipeline/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . \
 && /opt/lc-pipeline/bin/python -m pip uninstall -q -y pip setuptools

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="lc-pipeline" \
      org.opencontainers.image.description="Moves LimaCharlie's event, detection and audit streams into Kafka, files and terminals, whole." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/lc-pipeline /opt/lc-pipeline
ENV PATH=/opt/lc-pipeline/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    LC_ADMIN_PORT=9600
RUN install -d -o 10001 -g 10001 /data
USER 10001:10001
# Relative paths, like the default dead letter, are meant to land in the volume.
WORKDIR /data
VOLUME /data
EXPOSE 4443 9600
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['LC_ADMIN_PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["lc-pipeline"]
CMD ["run", "/etc/lc-pipeline/config.yaml"]
