"""giblet: what each piece of the brain takes from a movie."""
