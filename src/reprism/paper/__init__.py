"""The paper's tables: published figures, and the experiments that regenerate them."""
