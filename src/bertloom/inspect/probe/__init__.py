"""What a model knows of language: what its heads look at, what its states tell, which heads it needs; one file each."""
