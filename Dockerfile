# docker build -t mirror . ; docker run -p 11434:11434 -v models:/var/lib/mirror mirror
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml requirements.lock README.md config.yaml ./
COPY contrib contrib
COPY mirror mirror
RUN python -m venv /opt/mirror \
 && /opt/mirror/bin/pip install --no-cache-dir --constraint requirements.lock '.[mdns,otel,postgres]'

FROM python:3.13-slim
LABEL org.opencontainers.image.title="mirror" \
      org.opencontainers.image.description="A registry mirror, API proxy and hub for Ollamas" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --system --uid 10001 --home-dir /var/lib/mirror --create-home mirror
COPY --from=build /opt/mirror /opt/mirror
USER 10001
WORKDIR /var/lib/mirror
ENV PATH=/opt/mirror/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    OLLAMA_MIRROR_CACHE_DIR=/var/lib/mirror/store
EXPOSE 11434
VOLUME /var/lib/mirror
HEALTHCHECK --start-period=60s --interval=30s --timeout=6s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:11434/readyz', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["mirror"]
CMD ["serve"]
