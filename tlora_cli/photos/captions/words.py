"""English words by what they do in a caption; all in small letters."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DEFINITE = _words("the this that these those my your his her its our their")
"""Articles, and words in their place, for a thing that was named already."""
SEVERAL = _words("two three four five six several many some multiple few both")
DETERMINERS = DEFINITE | SEVERAL | _words("a an one no every each any")
OTHERS = _words("another other second third fourth different")
"""Marks of a thing of the class that is not the subject."""
GROUPS = _words("group pack pair couple herd flock row litter bunch set number")
"""Nouns before `of` and a plural: "a pair of shoes"."""
POSSESSIVE = _words("his her its their")
PRONOUNS = _words("it he she they")

PREPOSITIONS = _words(
    "of in on at by with without from to into onto over under underneath beneath beside besides "
    "behind before above below near next between among amid against along across around through "
    "inside outside within toward towards beyond off atop upon alongside for about past"
)
FORMS_OF_BE = _words("is are was were be been being")
LINKS = _words("and or but while as that which who whose where when because so than then not")
VERBS = _words(
    "has have had can could will would does do did there here looks appears seems sits lies stands "
    "sat lay stood slept ran shows features holds wears rests sleeps runs walks plays jumps"
)
STOPS = PREPOSITIONS | FORMS_OF_BE | LINKS | VERBS | PRONOUNS
"""Words that are no attributes of the noun behind them."""
ADVERBS = _words(
    "outside outdoors indoors inside asleep awake alone here there up down out away seen facing "
    "together upside nearby"
)
"""Words that may follow the subject, besides verbs, prepositions and signs."""
PARTICLES = _words(
    "up down out back open closed shut raised lowered crossed spread perked tucked wide half turned"
)
"""Words that make a part of the body a pose: "with its mouth open"."""
POSES = _words(
    "sitting lying standing sleeping running jumping walking swimming flying playing resting "
    "crouching kneeling smiling dancing floating rolling stretching leaning hanging yawning barking"
)
"""Poses that may stand before the subject: "a sleeping dog"."""

LOOKS = _words(
    # Colors.
    "black white brown gray grey red orange yellow green blue purple violet pink golden gold "
    "silver tan beige cream chestnut ginger tawny fawn blond blonde brindle turquoise teal "
    "maroon reddish brownish whitish grayish greyish yellowish multicolored colorful colored "
    "light dark pale bright "
    # Size, age and make.
    "small little tiny big large huge giant tall short long thin slim skinny fat chubby plump "
    "young old adult elderly fluffy furry shaggy curly wavy straight hairy smooth soft silky "
    "shiny glossy wrinkled wrinkly fuzzy scruffy spotted striped dotted patterned plain round "
    "pointed pointy floppy bushy sleek muscular stocky sturdy wooden metal metallic plastic "
    "ceramic plush stuffed worn rusty transparent "
    # How it pleases.
    "cute adorable beautiful pretty handsome lovely majestic elegant charming sweet "
)
"""Adjectives that say what the subject looks like."""
DEGREES = _words("very mostly mainly quite rather all so partly predominantly completely both")
PARTS = _words(
    "fur coat hair ear ears eye eyes tail face nose snout muzzle mouth paw paws leg legs foot "
    "feet head neck chest belly back body skin beard mustache stripe stripes spot spots dot dots "
    "patch patches marking markings feather feathers wing wings beak horn horns antlers mane "
    "whiskers tongue teeth scales shell color colors colour colours coloring pattern patterns "
    "texture features expression appearance wheel wheels handle handles lid rim spout strap "
    "straps sole soles "
)
"""Nouns for what belongs to a subject and isn't put on it."""

ENGLISH = DETERMINERS | PREPOSITIONS | FORMS_OF_BE | LINKS
"""Words of which nearly each English caption has one."""

SAME = {
    "dog": ("puppy", "pup", "doggy", "doggie"),
    "cat": ("kitten", "kitty"),
    "person": ("man", "woman", "boy", "girl", "child", "lady", "guy"),
    "man": ("guy", "gentleman", "person"),
    "woman": ("lady", "person"),
    "child": ("kid", "boy", "girl", "toddler", "baby"),
}
"""Class -> other words by which a model may call it."""
PLURALS = {"person": "people", "man": "men", "woman": "women", "child": "children",
           "mouse": "mice", "wolf": "wolves", "goose": "geese", "foot": "feet",
           "knife": "knives", "leaf": "leaves", "sheep": "sheep", "fish": "fish"}  # fmt: skip
"""Singular -> plural that doesn't follow the rule."""


def plural_of(word: str) -> str:
    """Return the plural of a noun."""
    if word in PLURALS:
        return PLURALS[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"
