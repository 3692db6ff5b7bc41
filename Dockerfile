# Serves a gallery on CPUs. docs/how-to/docker.md explains how to build and run it.
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /src

# torch first: a change in the sources then does not download it again. "+cpu" takes it from the second index.
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu 'torch==2.*,>=2.6' torchvision

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu '.[serve]'

# The owner of the mounted gallery and of the audit log's folder has this id.
RUN useradd --uid 1000 --create-home reprism \
    && mkdir /gallery /model /audit \
    && chown reprism /gallery /audit
USER reprism
WORKDIR /home/reprism

EXPOSE 8000

# Answers 503, and is unhealthy, while the gallery cannot be read.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]

# Listens on all of the container's addresses, which needs tokens: REPRISM_TOKENS, or --tokens FILE after the image's name.
ENTRYPOINT ["reprism", "serve", "--gallery", "/gallery", "--model", "/model/model.safetensors", "--host", "0.0.0.0", \
            "--port", "8000", "--audit", "/audit/gallery.audit.jsonl"]
