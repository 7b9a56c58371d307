"""StyleGAN2: latent vectors to pictures, and pictures to logits."""

from survlens.generators.stylegan2.augmentation import Augmentation as Augmentation
from survlens.generators.stylegan2.discriminator import Discriminator as Discriminator
from survlens.generators.stylegan2.generator import Generator as Generator
from survlens.generators.stylegan2.loading import discriminator_from as discriminator_from
from survlens.generators.stylegan2.loading import generator_from as generator_from
from survlens.generators.stylegan2.loading import weights_from as weights_from
from survlens.generators.stylegan2.mapping import Mapping as Mapping
from survlens.generators.stylegan2.pictures import to_network as to_network
from survlens.generators.stylegan2.pictures import to_pictures as to_pictures
from survlens.generators.stylegan2.shape import StyleGAN2Shape as StyleGAN2Shape
from survlens.generators.stylegan2.synthesis import NoiseKind as NoiseKind
from survlens.generators.stylegan2.synthesis import Synthesis as Synthesis
