# The tag names one Python on one Debian. To pin the very bytes too, ask the registry for the digest
#     docker buildx imagetools inspect python:3.12.14-slim-bookworm
# and write it behind the tag, here and below: python:3.12.14-slim-bookworm@sha256:...
FROM python:3.12.14-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /app
RUN python -m venv .venv
COPY requirements.txt ./
RUN .venv/bin/pip install --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY proxy ./proxy
# pip compiles what it installs, so that the running container need not write a byte.
RUN .venv/bin/pip install --no-deps --no-build-isolation .


FROM python:3.12.14-slim-bookworm

# The ledger's default path is data/mobius.db: /app/data leads to the volume, the only place that is
# written to, so the root file system may be read-only.
RUN groupadd --gid 10001 mobius \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin mobius \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data \
    && mkdir /app \
    && ln -s /data /app/data
WORKDIR /app
COPY --from=build /app/.venv ./.venv
# The default configuration; mount your own over it.
COPY litellm_config.yaml ./

ENV PATH="/app/.venv/bin:$PATH" \
    HOME=/data \
    TMPDIR=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
VOLUME /data
EXPOSE 4000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["mobius", "health"]
ENTRYPOINT ["mobius"]
CMD ["serve", "--host", "0.0.0.0"]
