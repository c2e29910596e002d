FROM python:3.13-slim

RUN useradd --create-home --uid 10001 orchestrator \
    && install --directory --owner=orchestrator --group=orchestrator /artifacts
COPY . /source
RUN pip install --no-cache-dir '/source[postgres]' && rm -r /source

# A new volume on /artifacts takes over its owner.
USER orchestrator
WORKDIR /home/orchestrator
ENTRYPOINT ["orchestrator"]
