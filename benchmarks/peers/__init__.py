"""What a user would pick instead, each as its own documentation shows it; see README.md here."""
