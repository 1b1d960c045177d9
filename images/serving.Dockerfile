# What Ray pods run, heads and workers: Python, torch, Ray and our code with the extra `serving`. About 6 GB, most of it CUDA's libraries.
# Any Debian-like image with python3 3.11 or newer, its venv module and bash (Ray starts programs through it).
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# The version that wrote uv.lock, or a newer one.
ARG UV_VERSION=0.13.9
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
ENV UV_PROJECT_ENVIRONMENT=/opt/aixcoder \
    UV_PYTHON=python3 \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1
# For the engine's native operations, which the wheel then holds: this stage alone has a compiler.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The locked packages first: a change of our code leaves their layer as it is.
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --frozen --no-dev --extra serving --no-install-project
RUN echo "aixcoder:x:1000:1000::/tmp:/usr/sbin/nologin" >> /etc/passwd && echo "aixcoder:x:1000:" >> /etc/group
COPY README.md LICENSE hatch_build.py ./
COPY operator operator
COPY serving serving
# Our code lies beside the packages, so that a change of it changes a layer of some hundred kilobytes and not the one of gigabytes.
# Built anew: a package cache that other builds share may hold it without the native operations.
RUN /opt/uv/bin/uv pip install --no-deps --compile-bytecode --refresh-package aixcoder --target /opt/aixcoder-code . \
    && { [ "$(uname -m)" != x86_64 ] || [ -f /opt/aixcoder-code/aixcoder_serving/engine/cpu/libaix_v3.so ]; }

FROM ${PYTHON_IMAGE}
COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build /opt/aixcoder /opt/aixcoder
COPY --from=build /opt/aixcoder-code /opt/aixcoder-code
ENV PATH=/opt/aixcoder/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/aixcoder-code \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 1000:1000
CMD ["ray", "--version"]
