-- What would go with the schema pgfleet although it is not pgfleet's: whatever outside it depends on something in it, but for
-- triggers (those on the application's tables that call our functions are ours).
with ours as (
    select 'pg_class'::regclass as classid, c.oid from pg_class c where c.relnamespace = 'pgfleet'::regnamespace
    union all select 'pg_proc'::regclass, p.oid from pg_proc p where p.pronamespace = 'pgfleet'::regnamespace
    union all select 'pg_type'::regclass, t.oid from pg_type t where t.typnamespace = 'pgfleet'::regnamespace
)
select distinct pg_describe_object(d.classid, d.objid, d.objsubid)
from pg_depend d
join ours on (d.refclassid, d.refobjid) = (ours.classid, ours.oid)
where d.deptype in ('n', 'a')
  and d.classid not in ('pg_trigger'::regclass, 'pg_default_acl'::regclass)
  and not exists (select from ours o where (o.classid, o.oid) = (d.classid, d.objid))
  and (pg_identify_object(d.classid, d.objid, d.objsubid)).identity !~ '(^|[ "(])pgfleet\.'
order by 1
