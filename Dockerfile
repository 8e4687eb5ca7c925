# syntax=docker/dockerfile:1
# Two targets: cpu (the default) and cuda, for NVIDIA GPUs. docs/docker.md shows how to use them.
#   docker build --tag no-time-to-train .
#   docker build --target cuda --tag no-time-to-train:cuda .

FROM python:3.12-slim-bookworm AS base
# Debian removes old versions of its packages, so a pinned one could not be installed for long.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
  && rm -rf /var/lib/apt/lists/* \
  && python -m venv --without-pip /opt/venv \
  && useradd --uid 1000 --user-group --create-home user \
  && install --directory --owner user --group user /work /work/checkpoints /work/app
ENV PATH=/opt/venv/bin:$PATH \
    VIRTUAL_ENV=/opt/venv \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["no-time-to-train"]
CMD ["--help"]

# The versions of the lock, with PyPI's torch, which brings CUDA.
FROM base AS cuda
WORKDIR /source
RUN --mount=type=bind,from=ghcr.io/astral-sh/uv:0.13.8,source=/uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=requirements.lock,target=requirements.lock \
    --mount=type=cache,target=/root/.cache/uv \
    uv pip install --requirement pyproject.toml --extra app --constraint requirements.lock
RUN --mount=type=bind,from=ghcr.io/astral-sh/uv:0.13.8,source=/uv,target=/usr/local/bin/uv \
    --mount=type=bind,target=/source,rw \
    --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps .
USER 1000:1000
WORKDIR /work

# The same versions, with PyTorch's own builds for the CPU, which are smaller. The lock does not have their hashes.
FROM base AS cpu
WORKDIR /source
RUN --mount=type=bind,from=ghcr.io/astral-sh/uv:0.13.8,source=/uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=requirements.lock,target=requirements.lock \
    --mount=type=cache,target=/root/.cache/uv \
    sed --regexp-extended '/^torch(vision)?==/,/[^\\]$/ { /--hash/d; s/ \\$// }' requirements.lock > /tmp/versions.txt \
  && uv pip install --requirement pyproject.toml --extra app --constraint /tmp/versions.txt --torch-backend cpu \
  && rm /tmp/versions.txt
RUN --mount=type=bind,from=ghcr.io/astral-sh/uv:0.13.8,source=/uv,target=/usr/local/bin/uv \
    --mount=type=bind,target=/source,rw \
    --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps .
USER 1000:1000
WORKDIR /work
