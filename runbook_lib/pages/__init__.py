"""What the report and the live view are made of: facts from the files, words, tables and pages."""
