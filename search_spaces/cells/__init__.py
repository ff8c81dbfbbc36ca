"""The small searched graphs: operations, cells, genotypes, skeletons, networks of them."""
