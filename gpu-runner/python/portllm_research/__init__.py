"""Fine-tunes, evolves and evaluates language models for PortLLM. See gpu-runner/python.ts, which starts it."""
