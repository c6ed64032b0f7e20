# The app in a container:
#   docker build -t attrib . && docker run --rm -p 127.0.0.1:7860:7860 attrib
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 attrib

USER attrib
WORKDIR /home/attrib/attrib

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GRADIO_ANALYTICS_ENABLED=False \
    ATTRIB_HOST=0.0.0.0 \
    ATTRIB_PORT=7860

COPY --chown=attrib:attrib . .
RUN make install

EXPOSE 7860

HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 \
    CMD [".venv/bin/python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"ATTRIB_PORT\"]}/', timeout=4)"]

CMD ["make", "app"]
