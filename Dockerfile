# One image for the API, the workers and beat; docker-compose.yml says which process runs.
# Compose builds it with CUDA's torch, docker-compose.cpu.yml with the CPU's.
FROM python:3.12-slim
ARG TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN pip install ${TORCH}
COPY requirements.lock requirements-data.lock ./
RUN grep -v '^torch==' requirements.lock > /tmp/requirements.txt \
    && pip install -r /tmp/requirements.txt \
    && pip install --no-deps -r requirements-data.lock
COPY pyproject.toml README.md alembic.ini ./
COPY memgen memgen
COPY registry registry
COPY workers workers
COPY api api
COPY migrations migrations
COPY packages/memgen-client packages/memgen-client
RUN pip install --no-deps --editable . --editable packages/memgen-client \
    && useradd --create-home --uid 10001 memgen \
    && mkdir -p /var/lib/memgen && chown memgen /var/lib/memgen
USER memgen
ENV MEMGEN_HOME=/var/lib/memgen
EXPOSE 8000
CMD ["python", "-m", "api.server", "--host", "0.0.0.0", "--port", "8000"]
