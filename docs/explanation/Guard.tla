------------------------------- MODULE Guard -------------------------------
(* Who may take one global prefix off the world: Anchors, Slots and witness.  *)
(* anchors-slots-witness.md tells the same in words; bgp/guard/spec_test.go   *)
(* walks through every state of small fleets by these very actions.           *)
(* A retirement is no part of it: from that order on nothing is promised of   *)
(* the prefix, and without it no configuration takes the last step.           *)
EXTENDS Naturals, FiniteSets
CONSTANTS Sites, K, Min      \* sites of the prefix, its slots, its anchors
ASSUME Min >= 1 /\ K <= Cardinality(Sites) - Min

VARIABLES
  step,      \* step[s]: "announce", "gshut" or "withdrawn"; gshut still announces
  reach,     \* sites which reach the store
  lease,     \* sites whose announcement stands in the store (10 s after they were cut off)
  named,     \* the director's plan: sites named to stay
  knows,     \* sites whose own snapshot names them
  ack,       \* sites which said so in the store (leased, too)
  held,      \* sites which hold a slot, in the store; never leased
  saw        \* sites whose router showed another's route when they looked last
vars == <<step, reach, lease, named, knows, ack, held, saw>>

Up == {s \in Sites : step[s] # "withdrawn"}

Init == /\ step = [s \in Sites |-> "announce"] /\ reach = Sites /\ lease = Sites
        /\ named \in {a \in SUBSET Sites : Cardinality(a) = Min}
        /\ knows = named /\ ack = named /\ held = {} /\ saw = {}

\* Any cause takes a site to gshut, and any cause may end: nobody is asked.
GShut(s)  == /\ step[s] = "announce" /\ step' = [step EXCEPT ![s] = "gshut"]
             /\ UNCHANGED <<reach, lease, named, knows, ack, held, saw>>
Plain(s)  == /\ step[s] = "gshut" /\ step' = [step EXCEPT ![s] = "announce"]
             /\ UNCHANGED <<reach, lease, named, knows, ack, held, saw>>

\* The last step with the store: one transaction takes a slot and compares the others.
BySlot(s) == /\ s \in reach /\ step[s] = "gshut" /\ s \notin knows
             /\ s \in held \/ Cardinality(held) < K
             /\ Cardinality((lease \ held) \ {s}) >= Min
             /\ held' = held \cup {s} /\ step' = [step EXCEPT ![s] = "withdrawn"]
             /\ lease' = lease \ {s} /\ ack' = ack \ {s}
             /\ UNCHANGED <<reach, named, knows, saw>>

\* The last step without it: seen a while ago, and the store has forgotten this site.
Look(s)   == /\ saw' = IF \E o \in Sites \ {s} : step[o] = "announce" THEN saw \cup {s} ELSE saw \ {s}
             /\ UNCHANGED <<step, reach, lease, named, knows, ack, held>>
ByWitness(s) == /\ s \notin reach /\ s \notin lease /\ s \in saw
                /\ step[s] = "gshut" /\ s \notin knows
                /\ step' = [step EXCEPT ![s] = "withdrawn"]
                /\ UNCHANGED <<reach, lease, named, knows, ack, held, saw>>

\* Back: announced first, and only then the slot is given back.
Back(s)   == /\ step[s] = "withdrawn" /\ step' = [step EXCEPT ![s] = "gshut"]
             /\ lease' = IF s \in reach THEN lease \cup {s} ELSE lease
             /\ UNCHANGED <<reach, named, knows, ack, held, saw>>
Free(s)   == /\ s \in Up \cap reach \cap held /\ held' = held \ {s}
             /\ UNCHANGED <<step, reach, lease, named, knows, ack, saw>>

\* The plan: a site joins, learns so, says so; only when Min others have may one go.
Join(s)   == /\ s \notin named \cup held /\ named' = named \cup {s}
             /\ UNCHANGED <<step, reach, lease, knows, ack, held, saw>>
Learn(s)  == /\ s \in reach /\ s \in named \ knows /\ s \in Up      \* if silent: Back first
             /\ knows' = knows \cup {s} /\ ack' = ack \cup {s}
             /\ UNCHANGED <<step, reach, lease, named, held, saw>>
Leave(s)  == /\ s \in named /\ Cardinality((named \cap ack) \ {s}) >= Min
             /\ named' = named \ {s}
             /\ UNCHANGED <<step, reach, lease, knows, ack, held, saw>>
Forget(s) == /\ s \in reach /\ s \in knows \ named
             /\ knows' = knows \ {s} /\ ack' = ack \ {s}
             /\ UNCHANGED <<step, reach, lease, named, held, saw>>

\* What happens to a site: cut off, mended; its lease runs out.
Cut(s)    == /\ s \in reach /\ reach' = reach \ {s}
             /\ UNCHANGED <<step, lease, named, knows, ack, held, saw>>
Mend(s)   == /\ s \notin reach /\ reach' = reach \cup {s}
             /\ lease' = IF s \in Up THEN lease \cup {s} ELSE lease
             /\ ack' = IF s \in knows THEN ack \cup {s} ELSE ack
             /\ UNCHANGED <<step, named, knows, held, saw>>
Expire(s) == /\ s \in lease \ reach /\ lease' = lease \ {s} /\ ack' = ack \ {s}
             /\ UNCHANGED <<step, reach, named, knows, held, saw>>

Next == \E s \in Sites : GShut(s) \/ Plain(s) \/ BySlot(s) \/ Look(s) \/ ByWitness(s) \/ Back(s) \/ Free(s)
          \/ Join(s) \/ Learn(s) \/ Leave(s) \/ Forget(s) \/ Cut(s) \/ Mend(s) \/ Expire(s)
Spec == Init /\ [][Next]_vars

\* The promises. Deaths are no part of Next: nobody's will takes a prefix down by them.
NeverNone   == Up # {}
NeverAboveK == Cardinality(held) <= K
AnchorsStay == knows \subseteq Up
EnoughKnow  == Cardinality(knows) >= Min
CountIsTrue == \A s \in lease : s \in Up    \* whom the store counts is there
=============================================================================
