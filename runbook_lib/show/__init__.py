"""What a person looks at while it runs: words, panel, pictures, console, terminal."""
