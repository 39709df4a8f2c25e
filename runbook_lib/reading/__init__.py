"""Reading a corpus file: any of its formats to documents, every oddity found and named before anything starts."""
