-- Who holds the advisory lock of a migrate on this shard. $1: the lock's key, a bigint (its halves are classid and objid).
select format('%s, connected since %s, process %s of the shard', a.application_name,
              to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'), a.pid)
from pg_locks l
join pg_stat_activity a using (pid)
where l.locktype = 'advisory' and l.granted and l.objsubid = 1
  and (l.classid::bigint << 32) | l.objid::bigint = $1
