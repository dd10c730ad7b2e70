"""What is asked: drawn scenes and videos, their questions, and data files."""
