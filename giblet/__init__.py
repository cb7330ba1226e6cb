"""giblet: what each piece of the brain takes from a movie.

    import giblet as gb

Data: movies, sheets and brains of a folder, or arrays
    MultimodalDataset, DataFolder, open_data; VideoProcessor, AudioProcessor, TextProcessor;
    simulate_dataset, default_data_dir; lag_curve, inter_subject_correlation; mel_frequencies

Regions of the brain
    Regions, regions_of, label_regions, schaefer_parcels, sphere, lesion_mask,
    presets_of, planted_parts

Model and training
    load_or_train, load_run, load_model, launch; Trainer, TrainingConfig, FULL_SIZE, LossPlot;
    MultimodalAutoencoder, build_model; SpanAutoencoder, fit_span, CoordinateDataset; merge

Three nouns: what the model predicts, what comes back, what a lesion takes away
    Prediction, Reconstruction, Lesion; LesionExplorer, the last one live

Comparisons of many of them
    ridge_predictions, fitting_trs, random_split, voxelwise_correlation; SOURCES,
    reconstruction_table, compare_with_ridge, ridge_decoder, name_places; intact_table,
    decoding_failures, region_sweep, unit_sweep, dose_response, unit_region_map, top_trs; Parts,
    part_sweep, receptive_fields, field_centres

Figures, films and sounds
    plot_maps, plot_volume, view_map, save_map, plot_regions, plot_scores; plot_words, plot_split,
    plot_lag_curve, plot_architecture; plot_film_strips, plot_spectrograms, text_table,
    plot_identification, plot_timeline; plot_sweep, plot_effects, plot_dose_response,
    plot_unit_region_map; plot_fields, plot_halves, plot_frequency_loss; embed_clip,
    embed_side_by_side, embed_sounds, decode_players; Checks

Everything is loaded when it is first used. Each name's own docstring says what it takes and gives;
the packages `data`, `alignment`, `models`, `training`, `analysis` and `plotting` hold the parts.
"""

import os

import lazy_loader

# Gradients of hundreds of megabytes come anew at every step; on Linux, huge pages spare a third of
# the time of a step. torch reads this at its first allocation, and so it is set before anything is
# allocated.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# On Linux (libgomp) a thread that waits for work spins, on a core that another process's threads
# could use: on two busy cores, two trainings at once took fifteen times as long. Asleep, it gives
# its core up. OpenMP reads this when it is loaded, at `import torch`: who imports torch before
# giblet keeps its default, and who has set a policy keeps that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
