"""The names of classes as a second cue next to references (docs/encoders.md)."""
