"""What users would pick instead of ltprompt, written as they meet it."""
