"""What --help says."""

from __future__ import annotations

DESCRIPTION = """\
Fetches the files of a model, verifies each against its digest, and publishes them at once as CACHE_DIR/model.
What is there already is not fetched again; what an interrupted download left is gone on with.
"""

EPILOG = """\
environment:
  AISERVICE_SOURCE          the source, as JSON in the form of a ModelCache's spec. One of
                              {"huggingFace": {"repo": "OWNER/NAME", "revision": "main", "include": [...],
                                               "exclude": [...], "endpoint": ...}}
                              {"s3": {"bucket": ..., "prefix": "", "endpoint": (unset: AWS), "region": ...,
                                      "include": [...], "exclude": [...], "pathStyle": false}}
                              {"http": {"files": [{"url": ..., "path": ..., "sha256": ..., "unpack": false}]}}
                                unpack: the file is a tar (plain, gzip, bzip2, xz, zstd) or zip archive, whose
                                content goes into the folder "path" once its sha256 was found right
                              {"oci": {"image": "REGISTRY/REPOSITORY:TAG", "path": ""}}
                                an image, of which only what is below "path" is taken, or an ORAS artifact
  AISERVICE_MODE            download (default), or
                              measure   tell how large the source is; no volume is needed
                              verify    hash what is published, and fetch again what is missing or changed
  AISERVICE_REVISION        the commit (huggingFace) or digest (oci) to take, instead of what the source's revision
                              or tag names by now (optional)
  AISERVICE_CACHE_DIR       the volume to fill, for example /cache; not needed to measure
  AISERVICE_CAPACITY_BYTES  size of the volume, where the file system below it is larger (optional)
  AISERVICE_ALLOWED_HOSTS   what may be reached besides public addresses, as a JSON list of host names
                              ("mirror.corp", "*.corp"), addresses and networks ("10.1.0.0/16") (default: nothing)
  HF_TOKEN                  access token for the Hugging Face Hub (optional)
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
                            credentials for s3; without them, requests are not signed (optional)
  DOCKER_AUTH_CONFIG        logins for registries, as JSON in the form of ~/.docker/config.json (optional)
  TERMINATION_LOG           where to write the result for Kubernetes (default: /dev/termination-log)
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE ... as usual; HF_HUB_DISABLE_XET=1 has the Hub's large files come over HTTP

output:
  standard output           one JSON object a line: progress every two seconds, then done or failed
  termination message       {"status": "ok", "bytes", "files", "revision", "fetchedBytes"}
                              verify: also "repaired" (paths, as many as fit) and "repairedFiles" (their number)
                              measure: {"status": "ok", "bytes", "files", "revision", "downloadBytes"}
                            {"status": "failed", "reason", "message", "retryable"}
                              a volume that is too small: also "requiredBytes", the bytes of files that it must hold;
                              huggingFace and oci: also "revision", if the source was listed

exit status: 0 done, 1 failed and may succeed later, 2 failed and needs a change, 143 stopped by SIGTERM
"""
