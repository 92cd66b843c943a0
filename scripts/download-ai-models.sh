#!/usr/bin/env bash
# Downloads the models of the five tasks onto this machine, for Docker Compose or a network without Internet.
# scripts/download-ai-models.sh --help tells all; scripts/download-ai-models.ps1 is the same for PowerShell.
set -euo pipefail
source "$(dirname "$0")/lib/python.sh"

need_python
# Other systems than Linux may have no flock: there, uv is taken if it is installed, else pip.
if [[ " $* " != *" --help "* && " $* " != *" -h "* ]] && command -v flock >/dev/null; then
  AI_MODELS_UV=$(ensure_uv)
  export AI_MODELS_UV
fi
AI_MODELS_PROGRAM=$0 exec python3 "$repo_root/scripts/lib/ai_models/start.py" "$@"
