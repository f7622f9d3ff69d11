# tlora on an NVIDIA GPU. torch's wheels bring their own CUDA libraries; the base image adds what
# the container needs to see the driver. Its CUDA version is that of the pinned torch. The arguments
# are for machines without CUDA; scripts/build_image shows them in use.
ARG BASE=nvidia/cuda:13.0.2-base-ubuntu24.04
FROM ${BASE}

ARG DEBIAN_FRONTEND=noninteractive
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

# A C compiler and Python's headers are what Triton takes for train.execution: compile. tini is
# process 1: it hands signals on from the first moment, and takes in processes that are left over.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates gcc libc6-dev python3 python3-dev python3-venv tini \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

# torch has a layer of its own: it is large and changes seldom. pip's own settings, such as an index,
# a proxy or a certificate, are a secret of the build and don't stay in the image:
#   docker build --secret id=pip,src=pip.conf -t tlora .
COPY constraints.txt /opt/tlora/
ARG TORCH=torch
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install -c /opt/tlora/constraints.txt ${TORCH}

COPY pyproject.toml README.md LICENSE /opt/tlora/
COPY tlora_cli /opt/tlora/tlora_cli
ARG EXTRAS=[cuda]
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install -c /opt/tlora/constraints.txt "/opt/tlora${EXTRAS}"

# Home and cache are open to every user, so `docker run --user` can be the owner of your folder.
ENV HOME=/cache \
    HF_HOME=/cache/huggingface
RUN useradd --no-create-home --home-dir /cache --uid 10001 tlora \
    && mkdir -p /cache/huggingface /workspace \
    && chmod 1777 /cache /cache/huggingface /workspace
VOLUME /cache
WORKDIR /workspace
USER tlora

ENTRYPOINT ["tini", "--", "tlora"]
CMD ["--help"]
