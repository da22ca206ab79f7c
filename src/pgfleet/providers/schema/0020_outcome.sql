-- One row a resolvable write, made inside its transaction: whether it is there decides whether the write was committed.
-- A void row is made by whoever asked first and found none: the transaction can then never commit.
create table if not exists pgfleet.outcome (
    id   uuid        primary key,
    void boolean     not null default false,
    at   timestamptz not null default now()
);

create index if not exists outcome_by_age on pgfleet.outcome using brin (at);

-- To update `at` is to have the row written again: whoever reads it then waits until the replicas have it too.
grant select, insert, delete, update (at) on pgfleet.outcome to :"app";
