# denature with everything that audit, steal, serve and robustness need. Build: docker build -t denature .
# A CPU build of torch makes a small image: pass its index with --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.12-slim

ARG PIP_EXTRA_INDEX_URL
WORKDIR /opt/denature
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY denature ./denature
RUN pip install --no-cache-dir -c constraints.txt '.[serve,onnx]' \
    && useradd --create-home --uid 1000 denature

# Runs and the cache lie in the mounted folder: docker run -v "$PWD:/work" denature audit MODEL --data DATA
USER 1000
WORKDIR /work
ENV DENATURE_CACHE=/work/.cache/denature \
    OMP_WAIT_POLICY=PASSIVE
EXPOSE 8000
ENTRYPOINT ["denature"]
CMD ["--help"]
