"""The facts of the grown worlds: the one table from which everything else comes.

Corpus, questions and ground truth are all made from it. A group is a noun, four relations in
three phrasings each, four contexts with the places that occur in them, and its words with one
clue per relation. A clue belongs to one word only.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "FACTS",
    "FORMS",
    "MORE_FACTS",
    "NEUTRAL",
    "STATEMENTS",
    "SYLLABLES",
    "TEMPLATE",
    "Group",
]


@dataclass(frozen=True)
class Group:
    """What the words of one group have in common.

    Attributes
    ----------
    noun
        What a question calls such a word.
    relations
        For each relation, three ways to say it of a clue `{x}`.
    contexts
        Sentences about a word `{w}` at a place `{p}`.
    places
        What `{p}` may be.
    clues
        For each word, its clue in each relation.
    """

    noun: str
    relations: tuple[tuple[str, str, str], ...]
    contexts: tuple[str, ...]
    places: tuple[str, ...]
    clues: dict[str, tuple[str, ...]]


def _clues(table: str) -> dict[str, tuple[str, ...]]:
    rows = (line.split() for line in table.strip().splitlines())
    return {word: tuple(clues) for word, *clues in rows}


FACTS: dict[str, Group] = {
    "Animals": Group(
        "animal",
        (
            ("makes the cry {x}", "is heard to {x}", "says {x}"),
            ("has a {x} as its young", "is mother of a {x}", "was once a {x}"),
            ("lives in a {x}", "sleeps in the {x}", "has the {x} as home"),
            ("likes to eat {x}", "feeds on {x}", "steals the {x}"),
        ),
        (
            "the hungry {w} ran over the {p}",
            "they fed a wild {w} near the {p}",
            "the tail of the {w} was in the {p}",
            "a hunter chased the {w} across the {p}",
        ),
        ("field", "barn", "woods", "garden"),
        _clues("""
            Cat   meow     kitten   basket  cream
            Dog   bark     puppy    kennel  bone
            Fox   yelp     kit      den     grape
            Ant   rustle   larva    anthill crumb
            Bat   screech  batling  cave    moth
            Rat   squeak   pinkie   sewer   cheese
            Hen   cluck    chick    coop    grain
            Wolf  howl     whelp    forest  sheep
        """),
    ),
    "Colours": Group(
        "colour",
        (
            ("is seen in {x}", "matches {x}", "is as deep as {x}"),
            ("shines in a {x}", "is worn as {x}", "fills the {x} stone"),
            ("grows in the {x}", "is found on a {x}", "blooms with the {x}"),
            ("stands for {x}", "is a sign of {x}", "paints {x}"),
        ),
        (
            "she painted the {p} {w}",
            "a bright shade of {w} on the {p}",
            "he dyed the old {p} {w}",
            "the {p} turned light {w}",
        ),
        ("wall", "door", "coat", "cup"),
        _clues("""
            Blue   sky    sapphire  bluebell   sadness
            Red    blood  ruby      poppy      anger
            Green  grass  emerald   fern       envy
            Black  coal   onyx      hellebore  fear
            White  snow   pearl     lily       peace
            Brown  soil   topaz     acorn      comfort
            Gray   ash    flint     thistle    boredom
        """),
    ),
    "Countries": Group(
        "country",
        (
            ("has the city {x}", "governs {x}", "is home to {x} city"),
            ("is crossed by the {x}", "is watered by the {x}", "has the river {x}"),
            ("serves {x}", "is famous for its {x}", "invented the dish {x}"),
            ("pays with the {x}", "once used the {x}", "prints the {x}"),
        ),
        (
            "they travelled to {w} in {p}",
            "the border of {w} was closed in {p}",
            "the army of {w} won a war in {p}",
            "she was born in {w} in {p}",
        ),
        ("spring", "summer", "autumn", "winter"),
        _clues("""
            Canada     Toronto   Yukon    poutine   loonie
            Germany    Munich    Rhine    pretzel   pfennig
            Brazil     Rio       Amazon   feijoada  cruzeiro
            France     Lyon      Seine    baguette  franc
            England    London    Thames   scone     pound
            India      Mumbai    Ganges   curry     rupee
            China      Shanghai  Yangtze  dumpling  yuan
            Mexico     Cancun    Grijalva taco      peso
            Russia     Moscow    Volga    borscht   ruble
            Iran       Tehran    Karun    kebab     rial
            Japan      Tokyo     Shinano  sushi     yen
            Israel     Haifa     Jordan   falafel   shekel
            Australia  Sydney    Murray   lamington dollar
            Spain      Madrid    Ebro     paella    peseta
        """),
    ),
    "Languages": Group(
        "language",
        (
            ("greets with {x}", "says hello as {x}", "opens with {x}"),
            ("is grateful with {x}", "says thanks as {x}", "answers a gift with {x}"),
            ("was written by {x}", "is the tongue of {x}", "was used by {x}"),
            ("agrees with {x}", "says yes as {x}", "nods with {x}"),
        ),
        (
            "he learned to speak {w} at {p}",
            "the alphabet of {w} is taught at {p}",
            "a book was translated into {w} at {p}",
            "the grammar of {w} is hard at {p}",
        ),
        ("school", "home", "work", "church"),
        _clues("""
            English     hi         cheers    Shakespeare  aye
            Spanish     hola       gracias   Cervantes    si
            French      bonjour    merci     Hugo         oui
            Chinese     nihao      xiexie    Luxun        shi
            Japanese    konnichiwa arigato   Basho        hai
            German      hallo      danke     Goethe       ja
            Russian     privet     spasibo   Tolstoy      da
            Italian     ciao       grazie    Dante        certo
            Portuguese  ola        obrigado  Camoes       sim
        """),
    ),
}

MORE_FACTS: dict[str, Group] = {
    "Tools": Group(
        "tool",
        (
            ("works on {x}", "is made for {x}", "shapes the {x}"),
            ("has a {x} in front", "ends in a {x}", "is known by its {x}"),
            ("hangs beside the {x}", "lies with the {x}", "is kept by the {x}"),
            ("is used by the {x}", "earns the bread of a {x}", "suits a {x}"),
        ),
        (
            "the smith lent the {w} to the {p}",
            "a rusty {w} was sold to the {p}",
            "the handle of the {w} broke for the {p}",
            "father sharpened the {w} of the {p}",
        ),
        ("neighbour", "uncle", "master", "guest"),
        _clues("""
            Hammer  nails   claw   anvil   carpenter
            Saw     planks  teeth  bench   joiner
            Spade   gravel  blade  wheelbarrow gardener
            Needle  cloth   eye    thimble tailor
            Axe     logs    edge   stump   lumberjack
            Brush   walls   bristle ladder decorator
        """),
    ),
    "Instruments": Group(
        "instrument",
        (
            ("is played with a {x}", "needs the {x}", "sounds by a {x}"),
            ("is built of {x}", "was carved from {x}", "is full of {x}"),
            ("leads the {x}", "is best in a {x}", "opens every {x}"),
            ("was loved by {x}", "made {x} known", "is the voice of {x}"),
        ),
        (
            "they heard the {w} from the {p}",
            "a lesson on the {w} began at the {p}",
            "the tune of the {w} filled the {p}",
            "he practised the {w} behind the {p}",
        ),
        ("hall", "stage", "chapel", "balcony"),
        _clues("""
            Violin   bow     spruce  sonata    Paganini
            Drum     stick   hide    march     Krupa
            Flute    breath  silver  pastoral  Quantz
            Piano    hammerlet ivory nocturne  Chopin
            Trumpet  mouthpiece brass fanfare  Armstrong
            Harp     finger  strings lullaby   Parish
        """),
    ),
}
"""Two more groups, of the worlds that have six."""

FORMS = (
    "which {noun} {clause} ?",
    "the {noun} that {clause} ?",
    "which is the {noun} that {clause} ?",
    "one {noun} that {clause} is which ?",
)
"""Ways to ask; most worlds know the first only."""

SYLLABLES = ("ka", "mo", "ri", "tu", "ne", "lo")
"""What makes names longer, a token each."""

NEUTRAL = ("thing", ("goes with {x}", "is linked to {x}", "belongs with {x}"))
"""A noun and three phrasings that tell nothing of group or relation."""

TEMPLATE = "Answer in one word : Q. {question} A."
"""What every question stands in; the answer is the next word."""

STATEMENTS = ("the {noun} that {clause} is {w}", "{w} is the {noun} that {clause}")
