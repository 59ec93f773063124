"""What a model knows of language, a file each: `of_file` asks, `draw`, `told` and `tables` show what was found."""
