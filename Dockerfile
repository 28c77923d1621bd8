# One image for the app and both workers; compose says which of them a container is.
FROM python:3.11-slim AS build

# cpu: the small build where one can be found, else whatever pip finds. cuda: what pip finds at TORCH_INDEX_URL and by
# default. The index is the builder's to name (see docs/operations.md).
ARG TORCH_BUILD=cpu
ARG TORCH_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/lamanas
ENV PATH=/opt/lamanas/bin:$PATH
WORKDIR /src

RUN set -eu; \
    index="${TORCH_INDEX_URL:+--extra-index-url=$TORCH_INDEX_URL}"; \
    if [ "$TORCH_BUILD" = cpu ] && pip install $index torch==2.13.0+cpu; then exit 0; fi; \
    pip install $index torch==2.13.0
COPY requirements.txt requirements-tracing.txt ./
RUN pip install -r requirements-tracing.txt
COPY . .
RUN pip install --no-deps --no-build-isolation .

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home lamanas \
    && install -d -o lamanas -g lamanas -m 700 /data \
    && install -d -o lamanas -g lamanas -m 755 /secrets \
    && install -d -o lamanas -g lamanas -m 700 /certificates
COPY --from=build /opt/lamanas /opt/lamanas
ENV PATH=/opt/lamanas/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LAMANAS_DATA_DIR=/data
USER lamanas
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["lamanas"]
CMD ["app"]
