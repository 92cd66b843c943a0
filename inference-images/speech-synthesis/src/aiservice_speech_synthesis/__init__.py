"""text-to-speech: models of Coqui TTS as an engine of aiservice_runtime."""
