"""Downloads the models of the five tasks onto one machine: what scripts/download-ai-models.sh and .ps1 run."""
