"""Reports: tables and pictures of scores that are already computed; neither torch nor lm_eval is needed."""
