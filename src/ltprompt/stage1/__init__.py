"""Stage 1: masked-language-model fine-tuning that finds the scores (paper, section 3.1)."""
