# One node. Mount its home, as `p2pnode init` made it, at /home/node, and run as its owner:
#   docker run --user "$(id -u):$(id -g)" -v "$PWD/lan/a:/home/node" -p 7000:7000 p2pnode
FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --home-dir /home/node --create-home --shell /usr/sbin/nologin node
WORKDIR /app

# What changes seldom comes first: a change of the code alone installs nothing anew.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir p2pnode protocols \
    && touch p2pnode/__init__.py protocols/__init__.py \
    && pip install --no-cache-dir -c constraints.txt .
COPY protocols protocols
COPY p2pnode p2pnode
RUN pip install --no-cache-dir --no-deps --force-reinstall .

USER node
VOLUME /home/node
ENTRYPOINT ["p2pnode", "run"]
CMD ["/home/node"]
