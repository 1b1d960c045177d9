# Operator, gateway, the chart's hook and its test: Python and our code with the extra `control`; no torch, no Ray.
# Any Debian-like image with python3 3.11 or newer and its venv module.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# The version that wrote uv.lock, or a newer one.
ARG UV_VERSION=0.13.9
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
ENV UV_PROJECT_ENVIRONMENT=/opt/aixcoder \
    UV_PYTHON=python3 \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1
WORKDIR /build
# The locked packages first: a change of our code leaves their layer as it is.
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --frozen --no-dev --extra control --no-install-project
COPY README.md LICENSE hatch_build.py ./
COPY operator operator
COPY serving serving
RUN /opt/uv/bin/uv sync --frozen --no-dev --extra control --no-editable
RUN echo "aixcoder:x:1000:1000::/tmp:/usr/sbin/nologin" >> /etc/passwd && echo "aixcoder:x:1000:" >> /etc/group

FROM ${PYTHON_IMAGE}
COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build /opt/aixcoder /opt/aixcoder
ENV PATH=/opt/aixcoder/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 1000:1000
CMD ["aixcoder-operator", "--help"]
