# A machine on which `domainbed` runs, as a user without rights. It needs no larger /dev/shm than
# Docker's 64 MB: a run that finds it too small says so, and loads its images in its own process.
#
#     docker build -t domainbed-gs .
#     mkdir -p runs
#     docker run --rm --user "$(id -u)" -v "$PWD/runs:/home/researcher/runs" domainbed-gs \
#         sweep launch --config quickstart --skip_confirmation --quiet
FROM python:3.12-slim

# The build of torch for CPUs is the smallest; for GPUs give --build-arg TORCH_BACKEND=auto.
ARG TORCH_BACKEND=cpu

COPY . /source
RUN pip install --no-cache-dir "uv>=0.9,<1" \
    && uv pip install --system --no-cache --torch-backend "${TORCH_BACKEND}" "/source[plots]" \
    && rm -rf /source \
    && useradd --create-home --uid 1000 researcher

USER 1000
WORKDIR /home/researcher
ENTRYPOINT ["domainbed"]
CMD ["--help"]
