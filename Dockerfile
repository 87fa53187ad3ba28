# One node. Its home, as `p2pnode keygen` or `init` made it, is the only thing that it writes to:
#   docker run --read-only --user "$(id -u):$(id -g)" -v "$PWD/a:/home/node" -p 7000:7000 p2pnode
# Which torch is installed is for pip's index to say. The ordinary one has a build that runs on NVIDIA's GPUs as well; with
# torch's own index of CPU builds the image is much smaller:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=… --build-arg TORCH=torch==2.13.0+cpu -t p2pnode .
FROM python:3.11-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL=
ARG TORCH=torch==2.13.0
ENV PIP_NO_CACHE_DIR=1 PIP_PYTHON=/opt/p2pnode/bin/python
RUN python -m venv --without-pip /opt/p2pnode
WORKDIR /src
# What changes seldom comes first: a change of the code alone installs nothing anew. What was built of the empty packages
# must not stay: it is newer than the code, and would be taken for it.
COPY constraints.txt ./
RUN pip install --no-compile -c constraints.txt "$TORCH" \
    && cd /opt/p2pnode/lib/python3.11/site-packages/torch \
    && rm -r test include && find bin -type f ! -name torch_shm_manager -delete
COPY pyproject.toml README.md LICENSE ./
RUN mkdir p2pnode protocols \
    && touch p2pnode/__init__.py protocols/__init__.py \
    && pip install --no-compile -c constraints.txt . \
    && pip uninstall --yes p2pnode \
    && rm -r build
COPY protocols protocols
COPY p2pnode p2pnode
# The import compiles what a node loads, and nothing else: a root that is not written to cannot keep it.
RUN pip install --no-compile --no-deps . \
    && cd / && /opt/p2pnode/bin/python -c "import p2pnode.cli, p2pnode.process, p2pnode.byzantine.behaviour"

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --home-dir /home/node --create-home --shell /usr/sbin/nologin node
COPY --from=build /opt/p2pnode /opt/p2pnode
# Nothing but the home is written to, so nothing is compiled or cached elsewhere.
ENV PATH=/opt/p2pnode/bin:$PATH PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp
USER node
VOLUME /home/node
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["p2pnode", "status", "/home/node", "--probe", "live"]
ENTRYPOINT ["p2pnode"]
CMD ["run", "/home/node"]
