"""The part network: a timm backbone cut into branches, parts pooled from them, checkpoints."""
