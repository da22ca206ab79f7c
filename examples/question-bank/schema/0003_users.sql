-- tables: users

-- Keyed by region, which also says where the row may be kept. An e-mail address is unique within its region; across
-- regions it takes a lookup table of its own.
create table users (
    region       text        not null check (region <> ''),
    id           uuid        not null default uuid_v7(),
    email        text        not null check (email like '%_@_%'),
    display_name text        not null default '',
    created_at   timestamptz not null default now(),
    last_seen_at timestamptz,

    primary key (region, id)
);

create unique index users_by_email on users (region, lower(email));
