"""Words and sentence forms that the prompt pairs of `tasks` are made of."""

from __future__ import annotations

HIS = (
    "John", "James", "Robert", "Michael", "David", "William", "Richard", "Thomas", "Charles", "Daniel", "Matthew",
    "Mark", "Paul", "Steven", "Andrew", "Kevin", "Brian", "George", "Edward", "Jason", "Jeff", "Ryan", "Jacob",
    "Eric", "Peter", "Frank", "Scott", "Justin", "Tom", "Jack", "Henry", "Adam", "Simon", "Luke", "Arthur",
)  # fmt: skip
HERS = (
    "Mary", "Linda", "Elizabeth", "Jennifer", "Susan", "Jessica", "Sarah", "Karen", "Nancy", "Lisa", "Anna", "Emma",
    "Laura", "Amy", "Helen", "Kate", "Rachel", "Maria", "Alice", "Julia", "Rebecca", "Emily", "Jane", "Anne",
    "Margaret", "Victoria", "Amanda", "Michelle", "Diana", "Lucy", "Charlotte", "Rose", "Grace", "Claire",
)  # fmt: skip
NAMES = HIS + HERS
PLACES = (
    "store", "school", "park", "station", "office", "garden", "museum", "library", "hospital", "restaurant", "market",
    "beach", "church", "hotel", "bank", "farm", "house", "airport",
)  # fmt: skip
THINGS = (
    "book", "drink", "ball", "letter", "ring", "card", "bag", "key", "box", "map", "pen", "phone", "camera", "ticket",
    "flower", "coin", "cup", "knife",
)  # fmt: skip
# of one length each, so that their tokens agree; {giver} is named the second time
GIVING = (
    "When {first} and {second} went to the {place}, {giver} gave a {thing} to",
    "While {first} and {second} stayed at the {place}, {giver} offered a {thing} to",
    "After {first} and {second} met at the {place}, {giver} handed a {thing} to",
    "Before {first} and {second} came to the {place}, {giver} sent a {thing} to",
    "Since {first} and {second} worked at the {place}, {giver} showed a {thing} to",
)
SPANS = (
    "The {noun} lasted from the year {century}{year} to the year {century}",
    "The {noun} went on from the year {century}{year} to the year {century}",
    "The {noun} continued from the year {century}{year} to the year {century}",
)
EVENTS = ("war", "trade", "conflict", "dispute", "campaign", "project", "journey", "building", "voyage", "treaty")
ABOUT_ONE = (
    "After work {name} was so tired that",
    "In the evening {name} was so happy that",
    "On the train {name} was so hungry that",
    "At the party {name} was so bored that",
)
NOUNS = (
    ("key", "keys"), ("book", "books"), ("car", "cars"), ("dog", "dogs"), ("house", "houses"), ("tree", "trees"),
    ("student", "students"), ("teacher", "teachers"), ("boy", "boys"), ("girl", "girls"), ("friend", "friends"),
    ("picture", "pictures"), ("song", "songs"), ("letter", "letters"), ("table", "tables"), ("window", "windows"),
    ("door", "doors"), ("doctor", "doctors"), ("bird", "birds"), ("horse", "horses"), ("ship", "ships"),
    ("flower", "flowers"), ("river", "rivers"), ("king", "kings"), ("game", "games"), ("box", "boxes"),
)  # fmt: skip
VERBS = (("is", "are"), ("was", "were"), ("has", "have"))
BESIDE = (
    "The {subject} near the {beside}",
    "The {subject} behind the {beside}",
    "The {subject} beside the {beside}",
)
