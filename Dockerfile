FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml requirements.lock README.md ./
COPY mirror mirror
RUN python -m venv /opt/mirror && /opt/mirror/bin/pip install --no-cache-dir --constraint requirements.lock .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/mirror --create-home mirror
COPY --from=build /opt/mirror /opt/mirror
USER mirror
WORKDIR /var/lib/mirror
ENV PATH=/opt/mirror/bin:$PATH OLLAMA_MIRROR_CACHE_DIR=/var/lib/mirror/store
EXPOSE 11434
VOLUME /var/lib/mirror
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:11434/readyz', timeout=5)"]
ENTRYPOINT ["mirror"]
CMD ["serve"]
